"""Binance's public market data, USDT-M futures and spot: REST within the weight budget, streams, symbol discovery."""
