// What JupyterHub's administration page expects to find; elsewhere it is written into the page, which our policy forbids.
(() => {
  const told = document.currentScript.dataset;
  window.jhdata = {
    base_url: told.baseUrl,
    prefix: told.prefix,
    user: told.user,
    admin_access: false,
    options_form: false,
    xsrf_token: told.xsrf,
  };
  window.base_url = told.baseUrl;
  window.api_page_limit = Number.parseInt(told.pageLimit, 10);
})();
