"""The plugins: found, loaded, looked up by name, and named in errors."""
