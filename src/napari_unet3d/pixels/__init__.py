"""The pixel classifier, the second learner."""
