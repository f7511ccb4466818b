"""The sizes of models and the targets for pruned models, as plain numbers without a model."""
