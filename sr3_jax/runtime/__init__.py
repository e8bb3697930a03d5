"""What everything stands on: start-up, devices, memory, paths, files that appear whole, the web server."""
