"""Threads in tables of rows named by partition and sort key: Azure Table Storage, Cosmos DB, DynamoDB."""
