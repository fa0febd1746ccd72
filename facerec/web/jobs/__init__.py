"""Jobs in the web tier: taken in, fed to the request queue in a window, and reported by callbacks."""
