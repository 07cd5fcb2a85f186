"""`make faults`: random faults against a real control plane and real operators, and a judge of what became of the jobs.

What a seed fixes: which faults come, in which order, how long each is and after which pause; and what each job is asked
to do. What it cannot fix: timing, so which pod or request a fault meets, and how many jobs there are in the end.
"""
