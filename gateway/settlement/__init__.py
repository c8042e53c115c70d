"""Settlement: periods, the lines and positions of a closed month, and the files that finance takes."""
