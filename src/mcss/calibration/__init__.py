"""Static cameras found from the person who moves in front of them, and the person in the room."""
