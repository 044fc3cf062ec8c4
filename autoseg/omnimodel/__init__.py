"""Image models that nobody trained here, asked for masks: services behind an API, and promptable models on this machine.

Takes images and prompts; gives masks as a trained model's prediction does. Sends nothing unless the call names the service.
"""
