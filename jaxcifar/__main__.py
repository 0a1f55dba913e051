"""`python -m jaxcifar`: the same command as `jaxcifar`."""

from jaxcifar import console

if __name__ == "__main__":
    console.launch()
