"""A raw dataset to what can be measured of it. Takes raw/; gives fingerprint.json. Must not decide anything."""
