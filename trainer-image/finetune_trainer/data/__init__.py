"""From the user's files to the token ids that train reads."""
