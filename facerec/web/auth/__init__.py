"""Which requests the web tier serves: API keys, rate limits, host and origin checks."""
