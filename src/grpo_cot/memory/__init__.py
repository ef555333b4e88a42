"""The memory that a recipe needs, estimated: `make plan`. No step of the pipeline reads this room."""
