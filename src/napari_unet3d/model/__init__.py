"""A trained model: how its learners decide together, and the file it is saved in."""
