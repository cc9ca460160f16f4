"""The Azure Tables backend: Azure Table Storage, and Cosmos DB's API for Table."""
