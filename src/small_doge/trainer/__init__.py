"""Training stages on `transformers.Trainer`, all by recipe."""
