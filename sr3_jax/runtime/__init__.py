"""Start-up, devices, memory, paths, atomic writing of files, and the web server."""
