"""What is known of round trips: from few measurements to every pair of user cell and cluster. Pure."""
