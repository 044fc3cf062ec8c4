"""Masks from zero-shot image models: services with an API, and promptable models on this machine.

Input: images and prompts. Output: masks in the same form as a trained model's. Sends images only if the call names the service.
"""
