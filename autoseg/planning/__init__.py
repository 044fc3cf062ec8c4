"""A fingerprint and the models' traits to decisions with reasons. Gives plan.json and splits.json. Must not read images."""
