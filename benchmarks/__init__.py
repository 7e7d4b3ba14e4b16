import stages as stages  # before anything loads numpy or torch: it says how their threads wait
