"""DynamoDB: templates, collection changes, API keys and worker reports."""
