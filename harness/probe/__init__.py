"""The probe: submissions run in miniature on a CPU, and watched while they score and learn."""
