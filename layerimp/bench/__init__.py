"""The grid: models x scorers x pruners x ratios x healers x tasks x repeats, computed cell by cell, and its findings.

Grid -> the layout names the cells -> the scheduler has an executor compute them, and stores the results
     -> findings -> tables and the page
"""
