"""People's files by VOSpace as an fsspec filesystem: ``vos://AUTHORITY~vospace/home/ada/x.fits``.

Registered with fsspec by the entry point ``vos``, so that pandas, xarray, zarr, dask and astropy take such addresses.
"""

from astrocloud_lab.vospace.filesystem import VOSpaceFileSystem

__all__ = ["VOSpaceFileSystem"]
