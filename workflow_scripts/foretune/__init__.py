"""Forecasts of what fine-tuning a vision-language dual encoder gains and makes it forget."""
