"""Who may use the web tier: API keys, rate limits, host and origin checks."""
