"""The grid: models x scorers x pruners x ratios x healers x tasks x repeats, computed cell by cell, and its results.

Grid -> the layout names the cells -> the scheduler has an executor compute them, and stores the results
     -> results -> tables and the page
"""
