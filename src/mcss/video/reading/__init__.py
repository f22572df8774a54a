"""Video files as players show them: images, stamps, chapters, and folders of images."""
