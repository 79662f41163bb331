"""Object stores, gs:// and s3://: their paths, and the libraries that reach them."""
