"""What a run or a grid yields, as pydantic models: the JSON document, its schema, and what Python users hold."""
