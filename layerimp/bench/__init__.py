"""The grid: models x scorers x pruners x ratios x healers x tasks x repeats, computed cell by cell, and what it shows.

Grid -> Layout names the cells -> the scheduler has an executor compute them and keeps them in the store
     -> findings -> tables and the page
"""
