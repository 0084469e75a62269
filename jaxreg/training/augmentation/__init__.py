"""What training changes at random in the images that a network sees."""
