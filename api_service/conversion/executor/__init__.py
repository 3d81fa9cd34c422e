"""Between the messages of the executor protocol and what `api_service.executor_client` calls the same things."""
