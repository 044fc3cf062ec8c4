"""Raw images and a plan to arrays on disk. The same functions prepare a new image for prediction.

Takes decoded images and a preparation; gives arrays of stored values and the tensors made of them. Must not know models.
"""
