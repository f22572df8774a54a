"""A trained model made better on one's own footage, and the measure without labels that says so."""
