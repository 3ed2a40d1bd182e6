"""What a model can do: held-out questions, problems and preferences."""
