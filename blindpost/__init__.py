"""The command line and the web page that put the parts together, and the pytest plugin."""
