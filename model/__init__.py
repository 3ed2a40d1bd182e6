"""The package `model` of the first guides, whose modules are in `small_doge.models.modules` today."""
