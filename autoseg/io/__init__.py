"""Files to arrays with their geometry, and back; a raw folder to its list of cases. Must not know plans or networks."""
