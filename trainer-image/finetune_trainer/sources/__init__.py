"""Where data and models come from: buckets, hubs, volumes, web servers."""
