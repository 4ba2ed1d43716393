"""The libraries that people use it by."""

from __future__ import annotations

import subprocess
import sys

import dask
import dask.array
import dask.dataframe
import numpy as np
import pandas as pd
import xarray as xr
import zarr
from astropy.io import fits
from astropy.table import Table
from given import AUTHORITY, folder, fs  # noqa: F401 - fixtures


def frame() -> pd.DataFrame:
    return pd.DataFrame({"ra": np.arange(5000.0), "name": [f"星{number}" for number in range(5000)]})


def test_pandas(folder):  # noqa: F811
    for end in ("csv", "parquet"):
        address = f"{AUTHORITY}{folder}/t.{end}"
        if end == "csv":
            frame().to_csv(address, index=False)
            found = pd.read_csv(address)
        else:
            frame().to_parquet(address)
            found = pd.read_parquet(address, columns=["ra", "name"])
        pd.testing.assert_frame_equal(found, frame(), check_dtype=False)


def test_xarray_and_zarr(folder):  # noqa: F811
    data = xr.Dataset({"flux": (("y", "x"), np.arange(10_000.0).reshape(100, 100))}, coords={"x": np.arange(100)})
    address = f"{AUTHORITY}{folder}/cube.zarr"
    data.to_zarr(address, encoding={"flux": {"chunks": (25, 50)}})
    with xr.open_zarr(address) as found:
        xr.testing.assert_identical(found.load(), data)
        assert float(found.flux.sel(x=7)[3]) == 307.0
    group = zarr.open_group(address, mode="a")
    group["flux"][0, 0] = -1.0
    assert zarr.open_group(address, mode="r")["flux"][0, :2].tolist() == [-1.0, 1.0]


def test_dask_in_threads_and_processes(folder):  # noqa: F811
    table = frame()
    for number in range(4):
        table[number * 1250 : (number + 1) * 1250].to_csv(f"{AUTHORITY}{folder}/part{number}.csv", index=False)
    for scheduler in ("threads", "processes"):
        with dask.config.set(scheduler=scheduler):
            found = dask.dataframe.read_csv(f"{AUTHORITY}{folder}/part*.csv")
            assert float(found.ra.sum().compute()) == float(table.ra.sum())
    dask.dataframe.from_pandas(table, npartitions=3).to_parquet(f"{AUTHORITY}{folder}/table")
    assert len(dask.dataframe.read_parquet(f"{AUTHORITY}{folder}/table")) == 5000
    dask.array.arange(1000, chunks=250).to_zarr(f"{AUTHORITY}{folder}/array.zarr")
    assert int(dask.array.from_zarr(f"{AUTHORITY}{folder}/array.zarr").sum().compute()) == 499500


def test_dask_distributed(folder):  # noqa: F811
    """In a program of its own: a cluster starts processes that import the main module again."""
    program = (
        "import dask.array, distributed, sys\n"
        "if __name__ == '__main__':\n"
        "    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:\n"
        "        with distributed.Client(cluster):\n"
        "            dask.array.ones((400, 400), chunks=100).to_zarr(sys.argv[1])\n"
        "            print(int(dask.array.from_zarr(sys.argv[1]).sum().compute()))\n"
    )
    command = [sys.executable, "-c", program, f"{AUTHORITY}{folder}/d.zarr"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["160000"]


def test_astropy(folder):  # noqa: F811
    address = f"{AUTHORITY}{folder}/i.fits"
    with __import__("fsspec").open(address, "wb") as file:
        fits.PrimaryHDU(np.arange(1_000_000.0).reshape(1000, 1000)).writeto(file)
    with fits.open(address, use_fsspec=True) as found:
        assert found[0].section[5, 6:8].tolist() == [5006.0, 5007.0]
    with __import__("fsspec").open(f"{AUTHORITY}{folder}/t.csv", "wb") as file:
        file.write(b"a,b\n1,2\n")
    with __import__("fsspec").open(f"{AUTHORITY}{folder}/t.csv") as file:
        assert Table.read(file, format="ascii.csv")["b"][0] == 2
