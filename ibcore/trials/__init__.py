"""What estimators are tried on: laws of known information, and the contract."""
