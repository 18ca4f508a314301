"""What the folders of reproductions share: small files of results, curves over the noise, tables, figures and pages."""
