"""`report.html`, made from report.json."""
