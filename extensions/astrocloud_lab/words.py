"""The few texts of this package that a person sees, in both languages.

Kept here and not in the platform's catalogue, since this package runs in
environments that have none of the platform's code.
"""

from __future__ import annotations

from typing import Literal

Language = Literal["en", "zh"]

WORDS: dict[str, dict[Language, str]] = {
    "tutorial.error.title": {
        "en": "The tutorial was not opened",
        "zh": "教程未能打开",
    },
    "tutorial.error.id": {
        "en": "“{value}” is not the name of a tutorial: a name has up to 64 small letters, digits and "
        "single hyphens. Open a tutorial from the platform's front page.",
        "zh": "“{value}”不是教程名称：名称由小写字母、数字和单个连字符组成，最多 64 个字符。请从平台首页打开教程。",
    },
    "tutorial.error.language": {
        "en": "“{value}” is not a language of the tutorials; choose en or zh.",
        "zh": "“{value}”不是教程可用的语言；请选择 en 或 zh。",
    },
    "tutorial.error.missing": {
        "en": "There is no tutorial “{value}” in this language. Installed are: {installed}.",
        "zh": "没有这种语言的教程“{value}”。已安装的教程有：{installed}。",
    },
    "tutorial.error.none": {
        "en": "none",
        "zh": "无",
    },
    "tutorial.error.folder": {
        "en": "The copy belongs into the folder {value}, but that is not a folder. Rename it and try again.",
        "zh": "副本应放入文件夹 {value}，但它不是文件夹。请将其改名后重试。",
    },
    "tutorial.error.write": {
        "en": "The copy could not be written to {value}: {reason}. Check the free space of your home and try again.",
        "zh": "无法将副本写入 {value}：{reason}。请检查主目录的剩余空间后重试。",
    },
    "tutorial.error.outside": {
        "en": "Your home {value} is not below the server's root folder {root}; open the file from a terminal.",
        "zh": "您的主目录 {value} 不在服务器根目录 {root} 之下；请在终端中打开该文件。",
    },
    "tutorial.error.back": {
        "en": "Open JupyterLab",
        "zh": "打开 JupyterLab",
    },
    "tutorial.confirm.title": {
        "en": "Open a copy of the tutorial “{value}”?",
        "zh": "打开教程“{value}”的副本？",
    },
    "tutorial.confirm.text": {
        "en": "You came here from another site. A copy of the tutorial will be put into the folder tutorials of "
        "your home; nothing is overwritten.",
        "zh": "您是从其他网站来到这里的。教程的副本将放入您主目录的 tutorials 文件夹；不会覆盖任何文件。",
    },
    "tutorial.confirm.open": {
        "en": "Open a copy",
        "zh": "打开副本",
    },
    "files.share": {
        "en": "Share…",
        "zh": "共享…",
    },
    "files.copy-address": {
        "en": "Copy VOSpace Address",
        "zh": "复制 VOSpace 地址",
    },
    "files.copied": {
        "en": "Copied: {address}",
        "zh": "已复制：{address}",
    },
    "files.copied-several": {
        "en": "Copied {count} VOSpace addresses, one a line.",
        "zh": "已复制 {count} 个 VOSpace 地址，每行一个。",
    },
    "files.not-copied": {
        "en": "The browser did not let the address be copied. Mark it here and copy it by hand:",
        "zh": "浏览器不允许复制地址。请在此选中并手动复制：",
    },
    # Entries of other packages' making that have no Chinese; the end of the key is the command.
    "label.dask:launch-layout": {
        "en": "Launch Dask Dashboard Layout",
        "zh": "打开 Dask 仪表盘布局",
    },
    "label.dask:populate-dashboard-url": {
        "en": "Populate Dask Dashboard URL",
        "zh": "填入 Dask 仪表盘地址",
    },
    "label.dask:populate-and-launch-layout": {
        "en": "Populate Dask Dashboard URL and launch the default layout",
        "zh": "填入 Dask 仪表盘地址并打开默认布局",
    },
    "label.dask:inject-client-code": {
        "en": "Inject Dask Client Connection Code",
        "zh": "插入 Dask 客户端连接代码",
    },
    "label.dask:toggle-auto-start-client": {
        "en": "Auto-Start Dask",
        "zh": "自动启动 Dask",
    },
    "kernel.no-debugger": {
        "en": "There is no debugger here: it would be open to everybody's programs on this machine. Use %debug or "
        "breakpoint() in a cell.",
        "zh": "此处没有调试器：它会向本机所有人的程序开放。请在单元格中使用 %debug 或 breakpoint()。",
    },
}


def language_of(text: str | None) -> Language:
    """Return the language that ``text`` (``zh-CN``, ``zh_CN.UTF-8``, ``en``) means; English if unknown."""
    return "zh" if (text or "").lower().startswith("zh") else "en"


def say(key: str, language: Language, **values: object) -> str:
    """Return the text of ``key``.

    Raises
    ------
    KeyError
        For a key or a value that does not exist: a fault of this package.
    """
    return WORDS[key][language].format(**values)
