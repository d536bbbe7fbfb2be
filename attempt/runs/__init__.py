"""What a run is asked for and what it leaves: its plan, its folder, its figures in words."""
