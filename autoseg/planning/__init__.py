"""From a fingerprint and the model specs to decisions with reasons: plan.json and splits.json. Reads no images."""
