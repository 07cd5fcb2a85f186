"""Sources of data and models: buckets, hubs, volumes, web servers."""
