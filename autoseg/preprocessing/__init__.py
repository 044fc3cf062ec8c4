"""Raw images and a plan to arrays on disk. The same functions prepare a new image for prediction."""
