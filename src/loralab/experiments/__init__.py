"""Many runs as one question: plans over one Config, and where their trials run."""
